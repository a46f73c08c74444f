# The tests, in the words of the README, in a copy of the checkout. Run by
# .ci/run, which reads the counts from trial.log.
set -euo pipefail
cd "$work/tests"
command=$(python3 "$ci/readme_command.py" README.rst tests-command)
printf '$ %s\n' "$command"
bash -e -o pipefail -c "$command" 2>&1 | tee "$work/trial.log"
