"""``python -m resolute``, the same as the command ``resolute``."""

from resolute.cli import main

if __name__ == "__main__":
    main()
