"""The scenarios ask of the machine what the integration tests ask of it."""

from tests.integration.conftest import java, namespaces_allowed

__all__ = ["java", "namespaces_allowed"]
