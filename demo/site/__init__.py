"""The demo world served as a web site, and the folder of the yt-dlp plugin that reads it.

    with serve(world_dir) as base_url: ...      demo.site.server
    python -m demo.site --world DIR --port N    the same for people

yt-dlp finds the site's extractors through `PLUGIN_DIR`; see the plugin's docstring for the call sequence.
"""

from pathlib import Path

PLUGIN_DIR = Path(__file__).resolve().parent.parent / "plugins"
"""Give this to yt-dlp as a plugin directory (`--plugin-dirs`, or the setting `plugin_dirs` of sayso's sources)."""
