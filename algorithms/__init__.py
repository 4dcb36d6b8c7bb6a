"""Policy losses, with advantages and corrections in folders of their own: one file per part."""
