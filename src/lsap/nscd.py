"""`python -m lsap.nscd codes=… generator=…`: NSCD of codes, whichever tool has made them."""

from lsap.cli.command import command

main = command("nscd", "lsap.pipelines.nscd_score:score")

if __name__ == "__main__":
    main()
