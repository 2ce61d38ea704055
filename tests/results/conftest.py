from tests.results.file_host import host

__all__ = ["host"]
