from hypothesis import settings

# No deadline: how long an example takes is the machine's business. The same examples each time: a test that fails for
# one fails for all.
settings.register_profile("ipse", deadline=None, derandomize=True)
settings.load_profile("ipse")
