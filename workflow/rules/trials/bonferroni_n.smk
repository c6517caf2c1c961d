use rule test as test_bonferroni_n with:
    wildcard_constraints:
        method="bonferroni_n",
    params:
        code=method_code("bonferroni_n"),
