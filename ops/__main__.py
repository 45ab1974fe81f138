"""`python -m ops` is the command `sayso`: for places where only the packages are, as in a submitted job."""

from ops.cli import main

if __name__ == "__main__":
    main()
