"""An RTSP camera on 127.0.0.1 for tests: prints `port N`, then serves a grey picture with a moving ball at /scene until
it is killed, and prints `frame N` for each frame it sends.

    server.py udp|tcp
"""
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


class Camera:
    frames = 0

    def configure(self, _factory, media):
        pad = media.get_element().get_by_name("pay0").get_static_pad("sink")
        pad.add_probe(Gst.PadProbeType.BUFFER, self.sent)

    def sent(self, _pad, _info):
        self.frames += 1
        print("frame", self.frames, flush=True)
        return Gst.PadProbeReturn.OK


Gst.init(None)
server = GstRtspServer.RTSPServer.new()
server.set_address("127.0.0.1")
server.set_service("0")  # any port that is free
factory = GstRtspServer.RTSPMediaFactory.new()
factory.set_launch(
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! h264parse"
    " ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)
ways = {"udp": GstRtsp.RTSPLowerTrans.UDP, "tcp": GstRtsp.RTSPLowerTrans.TCP}
factory.set_protocols(ways[sys.argv[1]])
camera = Camera()
factory.connect("media-configure", camera.configure)
server.get_mount_points().add_factory("/scene", factory)
if server.attach(None) == 0:
    sys.exit("no port could be opened")
print("port", server.get_bound_port(), flush=True)
GLib.MainLoop().run()
