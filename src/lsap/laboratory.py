"""`python -m lsap.laboratory`: what the demo's generator is worth beside the renderer, and sheets to look at."""

from lsap.cli.command import command

main = command("laboratory", "lsap.pipelines.generator_quality:laboratory")

if __name__ == "__main__":
    main()
