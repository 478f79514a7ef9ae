"""`python -m lsap.crop images=/path/to/photographs`: faces cut out as FFHQ shows them.

Generators and encoders of the face domain know aligned faces only. Beside the crops lies `crops.json`: which square of
which photograph each is, so that `lsap.paste` can put it back, and the images in which no face was found.
"""

from lsap.cli.command import command

main = command("crop", "lsap.pipelines.cropping:crop")

if __name__ == "__main__":
    main()
