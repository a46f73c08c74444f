# A tunnel between two processes of the installed wheel. Run by .ci/run.
set -euo pipefail
cd /
if ! [ -x "$work/wheel-venv/bin/twistd" ]; then
    echo "smoke failed: the wheel is not installed"
    exit 1
fi
"$work/wheel-venv/bin/python" "$ci/smoke.py"
