#!/bin/bash
# Makes a Debian package of what `make build` made: TARGET/masam_VERSION_ARCHITECTURE.deb. It depends on the libraries of the
# release of Debian that it was made on.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

: "${TARGET:=target}" "${REVISION:=1}"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)-$REVISION
architecture=$(dpkg --print-architecture)
package=$TARGET/masam_${version}_$architecture.deb
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/debian/masam
plugins=/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)/gstreamer-1.0

TARGET=$TARGET PREFIX=/usr DESTDIR=$root PLUGIN_DIR=$plugins scripts/install.sh install
rm "$root/usr/share/masam/installed" # dpkg has a list of its own
doc=$root/usr/share/doc/masam
mv "$doc/CHANGELOG.md" "$doc/changelog"
gzip -9n "$doc/changelog" "$root"/usr/share/man/man1/*.1
rm "$doc/LICENSE"
cat > "$doc/copyright" <<'COPYRIGHT'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: masam

Files: *
Copyright: The masam developers
License: Apache-2.0
 On Debian systems the full text of the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0.
COPYRIGHT

# dpkg-shlibdeps wants a source package's control file beside the tree.
cat > "$work/debian/control" <<'CONTROL'
Source: masam

Package: masam
Architecture: any
CONTROL
libraries=$(cd "$work" && dpkg-shlibdeps -O -e"debian/masam/usr/bin/masam" -e"debian/masam$plugins/libmasam.so")
libraries=${libraries#shlibs:Depends=}

mkdir "$root/DEBIAN"
cat > "$root/DEBIAN/control" <<CONTROL
Package: masam
Version: $version
Architecture: $architecture
Section: video
Priority: optional
Maintainer: The masam developers
Installed-Size: $(du -k -s "$root" | cut -f1)
Depends: $libraries, gstreamer1.0-tools, gstreamer1.0-plugins-base, gstreamer1.0-plugins-good, gstreamer1.0-plugins-bad, gstreamer1.0-plugins-ugly, gstreamer1.0-libav
Suggests: python3-gi, gir1.2-gst-plugins-base-1.0
Description: instrument and anatomy masks over surgical video
 MA-SAM (Segment Anything adapted to video) as a program, masam, and as a
 GStreamer plugin with the elements masaminfer, masamoverlay and masammask.
 .
 Research software, not a medical device.
CONTROL
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
dpkg-deb --root-owner-group --build "$root" "$package" > /dev/null
ls -l "$package"
