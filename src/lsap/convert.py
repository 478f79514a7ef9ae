"""`python -m lsap.convert source=… save_to=…`: published weights become safetensors, a generator rosinality's `.pt`.

What was written is read again and compared with what was meant, number by number, before the command says it is done.
"""

from lsap.cli.command import command

main = command("convert", "lsap.pipelines.conversion:convert")

if __name__ == "__main__":
    main()
