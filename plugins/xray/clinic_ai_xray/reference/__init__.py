"""Reference models that ship with the plugin, and the script that builds them."""
