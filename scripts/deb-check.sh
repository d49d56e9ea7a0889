#!/bin/bash
# Installs the package that `make deb` made in a fresh minimal Debian of this machine's release, uses it there as an
# ordinary user, and removes it again. Needs root and debootstrap; packages come from where this machine gets them.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${TARGET:=target}"
[ "$(id -u)" -eq 0 ] || { echo "deb-check: needs root, for debootstrap and chroot" >&2; exit 1; }
command -v debootstrap > /dev/null || { echo "deb-check: debootstrap is missing: apt install debootstrap" >&2; exit 1; }
packages=("$TARGET"/masam_*_"$(dpkg --print-architecture)".deb)
[ -f "${packages[0]}" ] || { echo "deb-check: no package in $TARGET: run make deb first" >&2; exit 1; }
package=$(ls -t "${packages[@]}" | head -1)

release=$(. /etc/os-release && echo "$VERSION_CODENAME")
# The first source of that very release in this machine's apt configuration.
mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
  awk -v release="$release" '$2 == release { print $1; exit }')
[ -n "$mirror" ] || { echo "deb-check: apt has no source of $release" >&2; exit 1; }

base=$(mktemp -d)
root=$base/debian
end() {
  umount "$root/proc" 2> /dev/null || true
  rm -rf --one-file-system "$base"
}
trap end EXIT

quietly() {
  "$@" > "$base/log" 2>&1 || { echo "deb-check: $* failed:" >&2; tail -30 "$base/log" >&2; exit 1; }
}
fail() {
  echo "deb-check: $1" >&2
  exit 1
}
inside() { chroot "$root" /usr/bin/env -i HOME=/tmp LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
as_user() { inside setpriv --reuid=65534 --regid=65534 --clear-groups sh -ec "cd /tmp && $1"; }

echo "a fresh $release"
quietly debootstrap --variant=minbase "$release" "$root" "$mirror"
# How this machine's apt is set up, without the sources of others.
rm -rf "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d"
mkdir -p "$root/etc/apt/sources.list.d"
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
  [ ! -f "$file" ] || cp "$file" "$root$file"
done
for file in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf; do
  [ ! -f "$file" ] || cp "$file" "$root/etc/apt/apt.conf.d/90$(basename "$file" | tr -d .)"
done
cp /etc/resolv.conf /etc/hosts "$root/etc/"
mount -t proc proc "$root/proc" 2> /dev/null || echo "SKIPPED: /proc in the chroot, which cannot be mounted here"

# Files before, so that what removal leaves can be seen.
files() { (cd "$root" && find bin etc lib opt sbin usr -name '*masam*' 2> /dev/null | sort); }
cp "$package" "$root/tmp/masam.deb"
echo "installing $(basename "$package")"
quietly inside apt-get update -q
quietly inside apt-get install -y -q --no-install-recommends /tmp/masam.deb
[ -n "$(files)" ] || fail "nothing was installed"

echo "using it"
as_user 'gst-inspect-1.0 masaminfer' > "$base/log" 2>&1 || { cat "$base/log" >&2; fail "gst-inspect-1.0 masaminfer"; }
as_user 'masam doctor' > "$base/log" 2>&1 || { cat "$base/log" >&2; fail "masam doctor"; }
grep -q 'ok  *masaminfer' "$base/log" || { cat "$base/log" >&2; fail "masam doctor does not see the plugin"; }
quietly as_user 'masam phantom --out scene --sequences 1 --frames 12 --size 320x256 --video'
quietly as_user 'masam run scene/seq_1.mp4 -o overlay.mkv'
grep -q '12 frames in, 12 out, 12 with masks' "$base/log" || { cat "$base/log" >&2; fail "masam run"; }
quietly as_user '/usr/share/masam/pipelines/file-to-file.sh scene/seq_1.mp4 plugin.mp4'
quietly as_user 'for video in overlay.mkv plugin.mp4; do gst-launch-1.0 filesrc location=$video ! decodebin ! fakesink; done'
quietly as_user 'test -s /usr/share/man/man1/masam-run.1.gz && test -s /usr/share/bash-completion/completions/masam'

echo "removing it"
quietly inside apt-get purge -y -q masam
left=$(files)
[ -z "$left" ] || fail "removal leaves $left"
echo "the package installs, works and goes"
