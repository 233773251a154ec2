"""The rooms behind the one public module, :mod:`flask_pusher`: CONTRIBUTING.rst has the map."""
