"""Start the Space: ``python app.py``."""

import os
import threading

import torch
from explorer.answer import warm_up
from explorer.limits import LIMITS, BodyLimit
from explorer.page import HEAD, THEME, build
from starlette.middleware import Middleware

demo = build()

if __name__ == "__main__":
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // LIMITS.at_once))
    threading.Thread(target=warm_up, daemon=True).start()
    demo.launch(
        theme=THEME,
        head=HEAD,
        app_kwargs={"middleware": [Middleware(BodyLimit, most=LIMITS.body_bytes)]},
        footer_links=["api"],
        state_session_capacity=1000,
        max_file_size=1,
        ssr_mode=False,
    )
