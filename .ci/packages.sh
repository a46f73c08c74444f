# Wheel, sdist, and the three ways to install; twistd must know both commands
# after each. Run by .ci/run.
set -euo pipefail
cd "$work/packages"

lint=$work/lint-venv/bin/python
if ! "$lint" -c 'import build, twine' 2>/dev/null; then
    python3 -m venv "$work/build-venv"
    lint=$work/build-venv/bin/python
    "$lint" -m pip install -q build twine
fi
"$lint" -m build --outdir "$work/dist" >"$work/build.log" 2>&1 || {
    tail -n 40 "$work/build.log"
    echo "packages failed: build"
    exit 1
}
"$lint" -m twine check --strict "$work"/dist/*

plugin=twisted/plugins/tristunnel_plugins.py
for file in "$work"/dist/*; do
    case $file in
        *.whl) listing=$(python3 -m zipfile -l "$file") ;;
        *) listing=$(tar -tf "$file") ;;
    esac
    grep -q "$plugin" <<<"$listing" || { echo "no $plugin in $file"; exit 1; }
    if grep -E '(^|/)twisted/(plugins/)?__init__\.py' <<<"$listing"; then
        echo "$file would overwrite Twisted's own files"
        exit 1
    fi
done

# tryInstall NAME REQUIREMENT...: in an environment of its own, seen from /.
tryInstall() {
    local name=$1 bin=$work/$1-venv/bin help command
    shift
    python3 -m venv "$work/$name-venv"
    "$bin/pip" install -q "$@"
    "$bin/pip" check
    cd /
    help=$("$bin/twistd" --help)
    for command in tunnel tunnel-client; do
        grep -Eq "^ +$command( |\$)" <<<"$help" || {
            printf '%s\n' "$help"
            echo "packages failed: no $command in twistd --help ($name)"
            exit 1
        }
        "$bin/twistd" "$command" --help >"$work/help.log" 2>&1 || {
            cat "$work/help.log"
            echo "packages failed: twistd $command --help ($name)"
            exit 1
        }
    done
    echo "twistd lists both commands: $name"
    cd "$work/packages"
}
tryInstall wheel "$work"/dist/*.whl
tryInstall plain .
tryInstall editable -e .
