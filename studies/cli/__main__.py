"""`python -m studies.cli` is `lmtune`."""

from studies.cli.app import main

if __name__ == "__main__":
    main()
