"""The errors that this package raises on purpose.

```
IbllmError
├── MediaError         a medium that cannot be read, is not what it says, or is not allowed
├── CheckpointError    weights or a model folder that do not fit; names the keys or files
├── DataError          training data of which nothing can be used; names rows and reasons
├── ConfigurationError options that cannot work together; says which value would
│   └── ContextLengthError  a conversation that leaves no room in the model's context
├── SchemaError        a JSON schema that decoding cannot enforce; names keyword and place
├── ModelError         a model whose numbers cannot be used
├── QueueFullError     more answers under way than an engine takes; says how many
├── EngineClosedError  an answer that was under way when its engine was closed
└── MissingExtraError  an optional package that is not installed; says the pip command
```

Each message tells what was found, what was expected and the next step.
"""

from __future__ import annotations


class IbllmError(Exception):
    """Root of every error that this package raises on purpose."""


class MediaError(IbllmError, ValueError):
    """A medium could not be read, is not what it says, or is not allowed by the policy."""


class CheckpointError(IbllmError, ValueError):
    """Weights or a model folder do not fit; the message names the keys or files."""


class DataError(IbllmError, ValueError):
    """Training data cannot be used at all; the message names rows and reasons."""


class ConfigurationError(IbllmError, ValueError):
    """Options cannot work together; the message says which value would."""


class ContextLengthError(ConfigurationError):
    """A conversation leaves no room for an answer in the model's context."""


class SchemaError(IbllmError, ValueError):
    """Decoding cannot enforce a JSON schema; the message names the keyword and where it stands."""


class ModelError(IbllmError, RuntimeError):
    """A model gave numbers that cannot be used."""


class QueueFullError(IbllmError, RuntimeError):
    """An engine has more answers under way than it takes; the message says how many."""


class EngineClosedError(IbllmError, RuntimeError):
    """The engine was closed before an answer ended."""


class MissingExtraError(IbllmError, ImportError):
    """An optional package is missing; the message holds the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the missing `package` and the `extra` that brings it."""
        super().__init__(
            f"{package} is not installed, and this needs it; "
            f"run `pip install 'ibllm-tools[{extra}]'`"
        )
