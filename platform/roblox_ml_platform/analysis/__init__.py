"""What an experiment has shown: statistics that stay valid however often somebody looks, and the report made of them."""
