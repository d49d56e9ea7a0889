#!/bin/sh
# A recorded video to a video with masks: every frame leaves with its own mask, however long that takes.
#
#   pipelines/file-to-file.sh input.mp4 overlay.mp4
set -eu
exec gst-launch-1.0 -e \
  filesrc location="$1" ! decodebin ! videoconvert \
  ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=exact ! masamoverlay name=overlay \
  ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast ! h264parse \
  ! mp4mux fragment-duration=500 fragment-mode=first-moov-then-finalise \
  ! filesink location="$2" buffer-mode=unbuffered o-sync=true
