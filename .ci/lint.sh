# Style and types, and the draft of the release notes. Run by .ci/run.
set -euo pipefail
cd "$work/lint"
python3 -m venv "$work/lint-venv"
bin=$work/lint-venv/bin
"$bin/pip" install -q -e '.[dev]'

# All of them speak, even when the first one fails.
status=0
check() {
    echo "\$ $*"
    "$bin/$@" || { echo "lint failed: $*"; status=1; }
}
check ruff check
check ruff format --check
check mypy
check lint-imports --no-cache
check towncrier build --draft
check sphinx-build -q -W -n -b html docs "$work/docs"
check sphinx-build -q -W -n -b man docs "$work/man"
check pydoctor -q tristunnel --html-output="$work/api"
exit "$status"
