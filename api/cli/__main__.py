"""`python -m mulligan.api.cli` is `mulligan`."""

from mulligan.api.cli.main import main

if __name__ == "__main__":
    main()
