"""`python -m lsap.app`: a page to play with: a picture, its inversion and edits, the numbers, the codes to take away.

Here is the page only; what it does is in `playground.py`. Seen by nobody but this machine unless `host` says otherwise.
Uploads are limited in size, decoded by lsap's own few decoders, deleted as soon as they are read, and never executed.
"""

from lsap.cli.command import command

main = command("app", "lsap.web.page:serve")

if __name__ == "__main__":
    main()
