#!/bin/sh
# A numbered sequence of pictures to a numbered sequence of class-id pictures. `masam run FOLDER -o FOLDER` does the
# same for any names.
#
#   pipelines/images-to-masks.sh frames/frame%03d.png masks/frame%03d.png
set -eu
exec gst-launch-1.0 -e \
  multifilesrc location="$1" caps="image/png,framerate=1/1" ! pngdec ! videoconvert \
  ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=exact frame-stride=1 \
  ! masammask name=overlay output=classes ! pngenc snapshot=false ! multifilesink location="$2"
