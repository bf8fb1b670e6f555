#!/usr/bin/env bash
# Makes a folder that holds all an offline machine needs: run this where there is a network, carry the folder over,
# run its deploy/install.sh there. Both machines need the same Python version, processor and kind of Linux.
#
#   deploy/bundle.sh DIR [PLUGIN-DIR…]        default plugins: plugins/echo plugins/xray;
#                                           'plugins/xray[train]' adds what training needs, and
#                                           'plugins/ultrasound[train]' questions about ultrasound images,
#                                           'plugins/ct[train]' chest CT
#
# PYTHON picks the interpreter; pip's own variables, such as PIP_INDEX_URL, say where packages come from.
set -euo pipefail

python=${PYTHON:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ $# -lt 1 ] || [ "$1" = --help ]; then
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit $(( $# < 1 ? 2 : 0 ))
fi
if [ -e "$1" ] && [ -n "$(ls -A "$1")" ]; then
  echo "$1 is not empty; name a new folder." >&2
  exit 1
fi
mkdir -p "$1"
bundle=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- "$root/plugins/echo" "$root/plugins/xray"

# One command, so that pip takes clinic-ai itself from here and does not look for it in an index.
"$python" -m pip wheel --disable-pip-version-check --wheel-dir "$bundle/wheels" \
  --constraint "$root/deploy/constraints.txt" "$root" "$@"

for folder in deploy systemd docs; do
  cp -r "$root/$folder" "$bundle/$folder"
done
printf '%s\n' "$@" | xargs -n 1 basename | sed 's/^/clinic-ai-/' > "$bundle/wheels/PLUGINS"
sums=$(cd "$bundle" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
printf '%s\n' "$sums" > "$bundle/SHA256SUMS"

echo "$bundle holds $(find "$bundle/wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$bundle" | cut -f1)."
echo "Carry it over and run: sudo deploy/install.sh"
