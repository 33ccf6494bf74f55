"""`python -m encircle`, the same as the command `encircle`."""

from .cli import main

if __name__ == "__main__":
    main()
