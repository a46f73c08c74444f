# The tests, in the words of the README, in a copy of the checkout. Run by
# .ci/run, which reads the counts from trial.log. With TRISTUNNEL_COVERAGE=1 also
# their branch coverage, which costs half as much time again.
set -euo pipefail
cd "$work/tests"
command=$(python3 "$ci/readme_command.py" README.rst tests-command)
printf '$ %s\n' "$command"
if [ -n "${TRISTUNNEL_COVERAGE:-}" ]; then
    # The README's command finds the environment with coverage in it; coverage's
    # .pth file starts it in each Python process, by these variables.
    python3 -m venv .venv
    .venv/bin/pip install -q coverage
    mkdir "$work/coverage"
    export COVERAGE_PROCESS_START=$work/tests/pyproject.toml
    export COVERAGE_FILE=$work/coverage/data
fi
status=0
bash -e -o pipefail -c "$command" 2>&1 | tee "$work/trial.log" || status=$?
if [ -n "${TRISTUNNEL_COVERAGE:-}" ]; then
    unset COVERAGE_PROCESS_START
    .venv/bin/coverage combine -q
    .venv/bin/coverage report || { echo "coverage: below the floor"; status=1; }
fi
exit "$status"
