"""Reference models that ship with the plugin, and the scripts that draw phantoms and build them."""
