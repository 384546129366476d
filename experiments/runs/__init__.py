"""An experiment's runs: planned outside the sandbox, performed inside."""
