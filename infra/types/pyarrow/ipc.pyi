"""The part of pyarrow.ipc that Headwater uses."""

from pyarrow import Table

class RecordBatchFileReader:
    def read_all(self) -> Table: ...

def open_file(source: bytes | str) -> RecordBatchFileReader: ...
