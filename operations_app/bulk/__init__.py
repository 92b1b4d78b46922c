"""Operations on many payments at once, over a list that is frozen when they are asked for."""
