"""
Names that people can say on the telephone, such as C{quiet-otter}.
"""

from __future__ import annotations

import secrets

__all__ = ["pronounceable"]

_QUALITIES = (
    "able amber bold brave brief bright brisk calm clear clever cosy crisp curious"
    " daring dear deep eager early easy fair famous fancy fast fine firm fond frank"
    " fresh gentle glad golden grand green happy hardy honest humble jolly keen kind"
    " large lively loud lucky lunar mellow merry mild modest neat new nimble noble"
    " novel odd open pale patient plain polite proud pure quick quiet rapid rare ready"
    " rich royal rural sharp shiny silent silver simple sleek slow smart smooth snowy"
    " soft solar solid spare steady still sunny sweet swift tall tame tidy tiny true"
    " vast vivid warm wild wise witty young zesty"
)

_THINGS = (
    "acorn alder anchor apple badger bamboo barley basil beacon beaver birch bison"
    " breeze brook canyon castle cedar cherry cloud clover comet copper coral cricket"
    " dolphin eagle ember falcon fern field finch forest fox garden ginger glacier"
    " harbor hazel heron hill island jasmine juniper kettle lagoon lake lantern lemon"
    " lily lion lotus lynx maple marble meadow melon mint moon moose moss mountain"
    " nutmeg oak ocean olive orchid otter owl panda pebble pepper pine planet plum pond"
    " poppy prairie quartz rabbit raven reef ridge river robin rose saffron sparrow"
    " spruce star stone stream summit swan thistle tiger timber tulip valley violet"
    " walnut willow wind wolf wren"
)


def pronounceable(attempt: int = 0) -> str:
    """
    Make a name of two words.

    @param attempt: How many were taken already; after a few a number is added.
    """
    name = f"{secrets.choice(_QUALITIES.split())}-{secrets.choice(_THINGS.split())}"
    return name if attempt < 3 else f"{name}-{secrets.randbelow(10 ** min(attempt, 9))}"
