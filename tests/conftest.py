import signal

from hypothesis import settings

# No deadline: how long an example takes is the machine's business. The same examples each time: a test that fails for
# one fails for all.
settings.register_profile("ipse", deadline=None, derandomize=True)
settings.load_profile("ipse")

# Where the tests are started in the background, Ctrl-C is ignored, and children inherit that; some tests need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
