# Style and types, and the draft of the release notes. Run by .ci/run.
set -euo pipefail
cd "$work/lint"
python3 -m venv "$work/lint-venv"
bin=$work/lint-venv/bin
"$bin/pip" install -q -e '.[dev]'

# The API reference takes as long as all the others, and half of the processors.
"$bin/pydoctor" -q tristunnel --html-output="$work/api" >"$work/api.log" 2>&1 &
reference=$!

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
echo "\$ pydoctor -q tristunnel"
wait "$reference" || { echo "lint failed: pydoctor"; status=1; }
cat "$work/api.log"
exit "$status"
