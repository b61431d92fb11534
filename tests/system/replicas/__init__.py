"""Two replicas behind a load balancer, and thousands of agents and followers: one replica goes."""
