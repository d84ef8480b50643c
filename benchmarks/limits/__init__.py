"""What each measure is compared with: the same work with everything left out that can be."""
