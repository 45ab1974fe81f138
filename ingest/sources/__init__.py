"""Where videos come from: one kind of source a file, each a function from what a person gave to `Video` rows.

folder.py     media files on this machine
lists.py      text, CSV and Parquet lists of URLs
feed.py       RSS and Atom feeds
site.py       playlists, channels, pages and searches, through yt-dlp
manifests.py  pictures with captions, sequences of pictures, interleaved pages; these are `Page` rows
"""
