"""Who may do what: users, service tokens, teams and roles, sessions of the device flow."""
