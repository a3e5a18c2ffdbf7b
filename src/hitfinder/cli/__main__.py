"""`python -m hitfinder.cli` is `hitfinder`."""

from hitfinder.cli import main

if __name__ == "__main__":
    main()
