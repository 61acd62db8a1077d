"""What talks with the Hub: repositories, cards, shards of rows, from plain data."""
