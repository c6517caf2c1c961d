use rule test as test_bonferroni with:
    wildcard_constraints:
        method=variants("bonferroni"),
    params:
        code=method_code("bonferroni"),
