#!/bin/bash
# Copies what `make build` made to below PREFIX, or takes away what it copied there. Builds nothing: root needs no Rust.
#
#   make install [PREFIX=/usr/local] [DESTDIR=] [PLUGIN_DIR=FOLDER]
#   make uninstall, with the same settings
#
# The plugin goes to where this GStreamer looks for plugins: to the user's own folder for a PREFIX below $HOME, to the
# system's for any other. What was copied, and which folders were made for it, is listed in PREFIX/share/masam/installed,
# which the next install and uninstall go by.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

what=$1
: "${PREFIX:=/usr/local}" "${DESTDIR:=}" "${PLUGIN_DIR:=}" "${TARGET:=target}"
built=$TARGET/release
share=$PREFIX/share
list=$share/masam/installed

fail() {
  echo "$what: $1" >&2
  exit 1
}

[[ $PREFIX == /* ]] || fail "invalid PREFIX $PREFIX (expected an absolute path)"

system_plugins=$(pkg-config --variable=pluginsdir gstreamer-1.0 2>/dev/null || true)
user_plugins=${XDG_DATA_HOME:-${HOME:-/nonexistent}/.local/share}/gstreamer-1.0/plugins
if [ -z "$PLUGIN_DIR" ]; then
  PLUGIN_DIR=$system_plugins
  case $PREFIX/ in "${HOME:-/nonexistent}"/*) PLUGIN_DIR=$user_plugins ;; esac
fi

# Where installs before the list was kept put the plugin, which GStreamer did not find there.
multiarch=$(basename "$(dirname "${system_plugins:-none/none}")")
forgotten=$PREFIX/lib/$multiarch/gstreamer-1.0/libmasam.so

# The files and folders (with a / at their end) that an earlier install listed.
listed=()
[ ! -f "$DESTDIR$list" ] || mapfile -t listed < "$DESTDIR$list"

# Takes files away, then the folders that were made for them and hold nothing else, from the innermost.
take_away() {
  local path
  for path in "$@"; do
    [[ $path == */ ]] || rm -f "$DESTDIR$path"
  done
  printf '%s\n' "$@" | sort -r | while read -r path; do
    [[ $path != */ ]] || rmdir "$DESTDIR$path" 2>/dev/null || true # something else is in it
  done
}

if [ "$what" = uninstall ]; then
  if [ ${#listed[@]} -eq 0 ]; then
    [ -e "$DESTDIR$forgotten" ] || fail "nothing of masam is listed in $DESTDIR$list"
    listed=("$forgotten" "$PREFIX/bin/masam" "$share/masam/demo.safetensors" "$share/masam/"
      "$share/bash-completion/completions/masam")
    for page in "$DESTDIR$share"/man/man1/masam{,-*}.1; do listed+=("${page#"$DESTDIR"}"); done
  fi
  take_away "${listed[@]}" "$list"
  exit 0
fi

[ -n "$PLUGIN_DIR" ] || fail "pkg-config does not know gstreamer-1.0: install libgstreamer1.0-dev, or set PLUGIN_DIR"
for file in "$built/masam" "$built/libmasam.so" "$built/share/man1/masam.1"; do
  [ -f "$file" ] || fail "$file is missing: run make build first, as the user who has Rust"
done
if [ -z "$DESTDIR" ]; then
  for folder in "$PREFIX/bin" "$share" "$PLUGIN_DIR"; do
    while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
    [ -w "$folder" ] || fail "$folder cannot be written to: use sudo, or PREFIX=\$HOME/.local"
  done
  if package=$(dpkg-query -S "$PLUGIN_DIR/libmasam.so" 2>/dev/null); then
    fail "$PLUGIN_DIR/libmasam.so belongs to the package ${package%%:*}: remove that first (apt remove ${package%%:*})"
  fi
fi

[ -z "$DESTDIR" ] || install -d "$DESTDIR"
doc=$share/doc/masam
installed=("$share/masam/" "$doc/")
# folder PATH: makes it, and notes what was not there.
folder() {
  local path=$1 missing=()
  while [ "$path" != / ] && [ ! -d "$DESTDIR$path" ]; do
    missing+=("$path/")
    path=$(dirname "$path")
  done
  installed+=("${missing[@]}")
  install -d "$DESTDIR$1"
}

# copy MODE FILE PATH [OPTION]...
copy() {
  local mode=$1 from=$2 to=$3
  shift 3
  folder "$(dirname "$to")"
  install -m "$mode" "$@" "$from" "$DESTDIR$to"
  installed+=("$to")
}

copy 755 "$built/masam" "$PREFIX/bin/masam" -s
copy 644 "$built/libmasam.so" "$PLUGIN_DIR/libmasam.so" -s
copy 644 weights/demo.safetensors "$share/masam/demo.safetensors"
for page in "$built"/share/man1/*.1; do copy 644 "$page" "$share/man/man1/$(basename "$page")"; done
copy 644 "$built/share/completions/masam.bash" "$share/bash-completion/completions/masam"
copy 644 "$built/share/completions/masam.zsh" "$share/zsh/site-functions/_masam"
copy 644 "$built/share/completions/masam.fish" "$share/fish/vendor_completions.d/masam.fish"
for file in LICENSE README.md CHANGELOG.md; do copy 644 "$file" "$doc/$file"; done
for file in docs/*.md configs/*; do
  [ ! -f "$file" ] || copy 644 "$file" "$doc/$file"
done
for file in examples/*; do
  case $file in *.py | *.sh) mode=755 ;; *) mode=644 ;; esac
  [ ! -f "$file" ] || copy "$mode" "$file" "$doc/$file"
done
# The pipelines name the model that lies beside them.
changed=$(mktemp)
trap 'rm -f "$changed"' EXIT
for file in pipelines/*; do
  sed "s|weights/demo.safetensors|$share/masam/demo.safetensors|g" "$file" > "$changed"
  case $file in *.sh) mode=755 ;; *) mode=644 ;; esac
  copy "$mode" "$changed" "$share/masam/$file"
done

# What an earlier install put elsewhere goes; a folder that it made stays ours.
old=("$forgotten")
for path in "${listed[@]}"; do
  case $path in */) [ ! -d "$DESTDIR$path" ] || installed+=("$path") ;; *) old+=("$path") ;; esac
done
for path in "${old[@]}"; do
  [[ " ${installed[*]} " == *" $path "* ]] || rm -f "$DESTDIR$path"
done
printf '%s\n' "${installed[@]}" | sort -u > "$DESTDIR$list"

[ -z "$DESTDIR" ] || exit 0
echo "$PREFIX/bin/masam"
echo "$PLUGIN_DIR/libmasam.so"
case $PLUGIN_DIR in
  "$system_plugins" | "$user_plugins") echo "gst-inspect-1.0 masaminfer finds it; masam doctor says more" ;;
  *) echo "GStreamer does not look there: export GST_PLUGIN_PATH=$PLUGIN_DIR" ;;
esac
