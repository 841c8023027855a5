"""The programs a person starts. The only package that knows Hydra: configuration ends here."""
