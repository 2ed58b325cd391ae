// Not used: see theme/index.hbs. mdBook writes a file of this name in any case.
