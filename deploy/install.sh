#!/usr/bin/env bash
# Installs or upgrades clinic-ai on this machine: a user, a virtual environment in /opt/clinic-ai, a home in
# /var/lib/clinic-ai, a systemd service. Run it again to upgrade; the version before stays beside the new one.
#
#   sudo deploy/install.sh [--no-start] [PLUGIN…]
#
# In a bundle made by deploy/bundle.sh it uses the wheels of the bundle and no network; in a checkout it builds the
# checkout and downloads what that needs. PLUGIN is a folder (checkout) or the name of a distribution (bundle);
# default: all of the bundle, or plugins/echo and plugins/xray. PYTHON picks the interpreter.
set -euo pipefail
umask 022

readonly prefix=/opt/clinic-ai
readonly home=/var/lib/clinic-ai
readonly user=clinic-ai
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
start=yes

fail() { echo "$1" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    --no-start) start=no; shift ;;
    --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "There is no option $1; see --help." >&2; exit 2 ;;
    *) break ;;
  esac
done

# ---- before anything is changed
[ "$(id -u)" = 0 ] || fail "Installing needs root: sudo $0"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  || fail "$python is missing or older than 3.11; name a newer one: sudo PYTHON=python3.12 $0"
"$python" -c 'import ensurepip, venv' 2>/dev/null \
  || fail "$python cannot make virtual environments; install the package python3-venv of your distribution."
interpreter=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
case $interpreter in
  /home/* | /root/*) fail "$interpreter lies in a home directory, which the service cannot see; use Python of the system." ;;
esac
if [ -f "$root/SHA256SUMS" ]; then
  (cd "$root" && sha256sum --quiet --check SHA256SUMS) || fail "The bundle is damaged; copy it again."
fi

# ---- the user
if ! id "$user" >/dev/null 2>&1; then
  if command -v systemd-sysusers >/dev/null; then
    install -D -m 0644 "$root/systemd/clinic-ai.sysusers.conf" /etc/sysusers.d/clinic-ai.conf
    systemd-sysusers /etc/sysusers.d/clinic-ai.conf
  else
    useradd --system --user-group --home-dir "$home" --shell /usr/sbin/nologin "$user"
  fi
fi

runuser -u "$user" -- "$interpreter" -c '' || fail "The user $user may not run $interpreter; use Python of the system."

# ---- the program: a new environment each time, made known by one rename, so that an upgrade is whole or not at all
release="$prefix/releases/$(date -u +%Y%m%dT%H%M%SZ)"
mkdir -p "$prefix/releases"
trap 'rm -rf "$release"; echo "Not installed; what was there before is untouched." >&2' ERR
"$python" -m venv "$release"
if [ -d "$root/wheels" ]; then
  [ $# -gt 0 ] || mapfile -t plugins < "$root/wheels/PLUGINS"
  [ $# -eq 0 ] || plugins=("$@")
  "$release/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$root/wheels" \
    clinic-ai "${plugins[@]}"
else
  [ $# -gt 0 ] || set -- "$root/plugins/echo" "$root/plugins/xray"
  "$release/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$root/deploy/constraints.txt" \
    "$root" "$@"
fi
"$release/bin/clinic-ai" --version >/dev/null
trap - ERR
for name in bin share; do
  mkdir -p "$release/$name"
  ln -s "$release/$name" "$prefix/.$name.new"
  mv -T "$prefix/.$name.new" "$prefix/$name"
done
mkdir -p "$release/share/doc/clinic-ai"
cp "$root"/docs/*.md "$root"/systemd/clinic-ai-{network,gpu}.conf "$release/share/doc/clinic-ai/"
ln -sf "$prefix/bin/clinic-ai" /usr/local/bin/clinic-ai

# ---- the home: made once, completed later, never changed
install -d -o "$user" -g "$user" -m 0750 "$home"
runuser -u "$user" -- "$prefix/bin/clinic-ai" init --home "$home"

# ---- the service
install -D -m 0644 "$root/systemd/clinic-ai.service" /etc/systemd/system/clinic-ai.service
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl enable --quiet clinic-ai
  [ "$start" = no ] || systemctl restart clinic-ai
else
  echo "systemd does not run here; start the daemon by hand: runuser -u $user -- clinic-ai run"
fi

echo "$("$prefix/bin/clinic-ai" --version) is in $release."
echo "Next: edit $home/clinic.toml, then \`systemctl reload clinic-ai\`; \`clinic-ai doctor\` checks everything."
