"""`python -m lsap.bench`: what the forms that lsap uses gain over others, on this machine. `make bench` runs it.

Absolute times say little about another machine; ratios of forms that took turns within one run say more.
"""

from lsap.cli.command import command

main = command("bench", "lsap.pipelines.benchmark.bench:bench")

if __name__ == "__main__":
    main()
