"""`python -m lsap.assets domain=face`: the published files that a domain and a method can use, present or missing.

With `fetch=true`, what has a direct address is downloaded, checked and put in place whole; the rest needs a browser,
and the command says where to go.
"""

from lsap.cli.command import command

main = command("assets", "lsap.pipelines.assets:assets")

if __name__ == "__main__":
    main()
