#!/bin/sh
# Two recordings of equal length: the video as it came, and its class ids as lossless grey video (FFV1), frame by
# frame. For data sets and for looking at masks later, in any palette.
#
#   pipelines/record-masks.sh input.mp4 raw.mkv masks.mkv
set -eu
exec gst-launch-1.0 -e \
  filesrc location="$1" ! decodebin ! videoconvert \
  ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=exact ! tee name=both \
  both. ! queue ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast \
  ! h264parse ! matroskamux ! filesink location="$2" buffer-mode=unbuffered o-sync=true \
  both. ! queue ! masammask name=overlay output=classes ! avenc_ffv1 \
  ! matroskamux ! filesink location="$3" buffer-mode=unbuffered o-sync=true
