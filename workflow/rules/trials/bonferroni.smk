use rule test as test_bonferroni with:
    wildcard_constraints:
        method="bonferroni",
    params:
        code=method_code("bonferroni"),
